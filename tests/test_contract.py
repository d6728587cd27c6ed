"""Where a contract is found, and what its rules may speak of. What its tables do is tested where they are used."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_envequiv import contract
from pytest_envequiv.errors import ContractError
from pytest_envequiv.judge import contract_of
from pytest_envequiv.verdict import Settings


@pytest.mark.parametrize("options", ["", "?frameskip=8", "?frameskip=8&continuous=true"])
def test_a_contract_in_the_targets_package_is_found_whatever_its_options(options, tmp_path, monkeypatch):
    package = tmp_path / "some_port"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "envequiv.toml").write_text("[coverage]\nbranches = 0.5\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert contract_of(Settings("anything", f"some_port{options}")).coverage == {"branches": 0.5}


def test_a_rule_may_speak_of_settings_that_have_no_rows():
    values = {"_x.left": np.array([1.0, 2.0]), "most": np.array(1.5)}
    assert contract.holds("x_left < most", values, "the rule").tolist() == [True, False]
    assert contract.holds("most > 1", values, "the rule").tolist() == [True, True]
    with pytest.raises(ContractError, match="may use most, x_left"):
        contract.holds("x_right < most", values, "the rule")


def test_what_a_rule_names():
    keys = ["_x.left", "most", "least"]
    assert contract.named_in("(x_left > 0) & (abs(most) < 3)", keys) == {"_x.left", "most"}
    assert contract.named_in(None, keys) == contract.named_in("x_left >", keys) == frozenset()
