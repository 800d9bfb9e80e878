"""Words of a command line as flags, and older names for them."""

from sft_guide import GUIDE

from llama_recipes_local.commands.sft.command_line import RENAMED, Flag, read_flags, renamed


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


def test_a_word_before_the_first_flag() -> None:
    flags, (problem,) = read_flags(["train", "--a"])
    assert flags == [Flag("a")]
    assert problem.what == "'train' stands on the command line without a flag"


def test_the_guides_flags_under_todays_names() -> None:
    flags, notes = renamed(read_flags(GUIDE)[0])
    by_name = {flag.name: flag.values for flag in flags}
    assert by_name["model_name_or_path"] == ("../Llama-2-7b-hf/",)
    assert by_name["per_device_train_batch_size"] == ("64",)
    assert not {"model_name", "batch_size"} & by_name.keys()
    assert notes == [
        "--> --model_name ../Llama-2-7b-hf/ is read as --model_name_or_path, its name today",
        "--> --batch_size 4 is left out: it is an older name of --per_device_train_batch_size, "
        "which is given too; --per_device_train_batch_size 64 counts",
    ]


def test_an_older_name_alone_is_what_it_is_today() -> None:
    flags, notes = renamed([Flag("batch_size", ("4",)), Flag("seq_length", ("128",))])
    assert flags == [Flag("per_device_train_batch_size", ("4",)), Flag("max_length", ("128",))]
    assert len(notes) == 2


def test_every_name_of_today_is_one_of_trls() -> None:
    from llama_recipes_local.commands.sft.flags import known_names

    known = known_names()
    assert set(RENAMED.values()) <= known
    assert not RENAMED.keys() & known
