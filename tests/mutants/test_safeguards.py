from __future__ import annotations

import pytest

from tests.mutants.safeguards import Mutant, mutants


@pytest.mark.parametrize("mutant", mutants().values(), ids=lambda one: one.name)
def test_what_a_mutant_leaves_out_is_there_to_be_left_out(mutant: Mutant) -> None:
    def values() -> list[object]:
        return [one.owner[one.name] if isinstance(one.owner, dict) else one.owner.__dict__[one.name] for one in mutant.replacements]

    real = values()
    with mutant.on():
        assert values() == [one.value for one in mutant.replacements]
    assert values() == real
