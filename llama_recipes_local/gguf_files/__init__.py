"""GGUF, the file format of llama.cpp and Ollama: a Llama's folder to a file, and back."""
