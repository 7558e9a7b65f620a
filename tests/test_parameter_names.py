"""Names of parameters and commands in a text of the library."""

from __future__ import annotations

from rasterembed.parameter_names import NamedParameter, named_parameters, replace_commands, replace_parameters


def test_parameters_have_a_name_a_value_and_an_owner() -> None:
    text = "give `anchor=crs` or `origin=3 -1.5`, not `source_store.https_hosts`, and see `Grid` and 'size'"
    assert list(named_parameters(text)) == [
        NamedParameter("anchor", "crs"),
        NamedParameter("origin", "3 -1.5"),
        NamedParameter("https_hosts", owner="source_store"),
    ]


def test_a_backtick_in_the_name_of_a_file_hides_no_parameter() -> None:
    text = "a`b.tif: there is no CRS: give `allow_no_crs`"
    assert replace_parameters(text, lambda parameter: f"<{parameter.name}>") == (
        "a`b.tif: there is no CRS: give <allow_no_crs>"
    )
    assert replace_parameters(text, lambda parameter: None) == text


def test_only_commands_get_other_words() -> None:
    text = "give `size`, or run `rasterembed datasets verify a`: the file `rasterembed` is no command"
    assert replace_commands(text, str.upper) == (
        "give `size`, or run `RASTEREMBED DATASETS VERIFY A`: the file `rasterembed` is no command"
    )
