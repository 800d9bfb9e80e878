"""Splitting a command line into flags, and the former names of flags."""

from sft_guide import GUIDE

from llama_recipes_local.commands.sft.command_line import RENAMED, Flag, read_flags, rename


def test_every_way_to_write_a_flag() -> None:
    words = ["--a=1", "--b", "2", "--c", "--d-e", "x", "y", "--f", "-1", "--g=", "--h=a=b"]
    flags, problems = read_flags(words)
    assert problems == []
    assert flags == [
        Flag("a", ("1",)),
        Flag("b", ("2",)),
        Flag("c"),
        Flag("d_e", ("x", "y")),
        Flag("f", ("-1",)),
        Flag("g", ("",)),
        Flag("h", ("a=b",)),
    ]
    assert [flag.words for flag in flags][2:5] == [["--c"], ["--d_e", "x", "y"], ["--f=-1"]]


def test_a_word_before_the_first_flag_is_a_problem() -> None:
    flags, (problem,) = read_flags(["train", "--a"])
    assert flags == [Flag("a")]
    assert problem.what == "unexpected argument 'train'"


def test_the_guides_flags_under_their_current_names() -> None:
    flags, notes = rename(read_flags(GUIDE)[0])
    by_name = {flag.name: flag.values for flag in flags}
    assert by_name["model_name_or_path"] == ("../Llama-2-7b-hf/",)
    assert by_name["per_device_train_batch_size"] == ("64",)
    assert not {"model_name", "batch_size"} & by_name.keys()
    assert notes == [
        "--> --model_name ../Llama-2-7b-hf/ is read as --model_name_or_path, its current name",
        "--> --batch_size 4 is ignored: it is the former name of --per_device_train_batch_size, "
        "which is given too; --per_device_train_batch_size 64 is used",
    ]


def test_a_former_name_is_read_as_the_current_one() -> None:
    flags, notes = rename([Flag("batch_size", ("4",)), Flag("seq_length", ("128",))])
    assert flags == [Flag("per_device_train_batch_size", ("4",)), Flag("max_length", ("128",))]
    assert len(notes) == 2


def test_current_names_are_trls_and_former_names_are_not() -> None:
    from llama_recipes_local.commands.sft.flags import known_names

    known = known_names()
    assert set(RENAMED.values()) <= known
    assert not RENAMED.keys() & known
