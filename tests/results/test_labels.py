"""Names of groups: short, and never the same for two."""

from typing import Any

from cse_bench.results.labels import labels, varying_settings


def run_of(name: str, group: str, **config: Any) -> dict[str, Any]:
    return {"method": {"name": name}, "group": group, "steps": 10, "config": {"seed": len(group), **config}}


def test_a_method_that_is_there_once_needs_no_settings() -> None:
    assert labels([run_of("simcse", "a", optimizer={"lr": 1}), run_of("esimcse", "b", optimizer={"lr": 2})]) == [
        "simcse",
        "esimcse",
    ]


def test_settings_that_differ_set_groups_apart() -> None:
    first = run_of("simcse", "a", method={"temperature": 0.05, "head": "train_only"}, paths={"cache": "x"})
    second = run_of("simcse", "b", method={"temperature": 0.1, "head": "train_only"}, paths={"cache": "y"})
    assert labels([first, second]) == ["simcse (temperature=0.05)", "simcse (temperature=0.1)"]
    assert varying_settings(first, [first, second]) == ["method.temperature=0.05"]


def test_what_no_setting_tells_apart_gets_its_hash() -> None:
    assert labels([run_of("simcse", "0123456789"), run_of("simcse", "9876543210")]) == [
        "simcse 01234567",
        "simcse 98765432",
    ]


def test_at_most_three_settings_are_named_and_the_hash_does_the_rest() -> None:
    many = {f"key{number}": 0 for number in range(5)}
    names = labels(
        [run_of("simcse", "aaaaaaaaaa", method=many), run_of("simcse", "bbbbbbbbbb", method=many | {"key4": 1})]
    )
    assert names == ["simcse (key4=0)", "simcse (key4=1)"]
    others = dict.fromkeys(many, 1)
    three = run_of("simcse", "cccccccccc", method=others | {"key4": 0})
    names = labels([run_of("simcse", "aaaaaaaaaa", method=many), run_of("simcse", "bbbbbbbbbb", method=others), three])
    assert len(set(names)) == 3
    assert names[1] == "simcse (key0=1, key1=1, key2=1) bbbbbbbb"


def test_what_decides_no_number_is_not_named() -> None:
    first = run_of("simcse", "a", evaluation={"baseline": True}, data={"num_workers": 0, "corpus": {"path": "x"}})
    second = run_of("simcse", "b", evaluation={"baseline": False}, data={"num_workers": 2, "corpus": {"path": "y"}})
    assert varying_settings(first, [second]) == []
    untrained = [run_of("untrained", name, backbone={"pooling": name}, optimizer={"lr": name}) for name in "ab"]
    assert labels([run | {"steps": 0} for run in untrained]) == ["untrained (pooling=a)", "untrained (pooling=b)"]


def test_a_key_that_only_one_has_is_a_difference() -> None:
    first, second = run_of("jtcse", "a", method={"rank": 1, "dropout": None}), run_of("jtcse", "b", method={"rank": 1})
    assert labels([first, second]) == ["jtcse (dropout=null)", "jtcse (dropout=absent)"]
