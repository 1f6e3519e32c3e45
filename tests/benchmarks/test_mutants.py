import pytest

SOURCE = """import os


def wait(limit: int | None = 3, *, name: str = "") -> int | None:
    if not os.path.exists(name):
        raise ValueError("None.")
    wait.n += 1
    print(
        limit,
    )
    return limit
"""


@pytest.fixture
def draw(tmp_path):
    pytest.importorskip("cosmic_ray", reason="needs cosmic-ray, as mutants.py says")
    import mutants

    (tmp_path / "module.py").write_text(SOURCE)
    return lambda seed: list(mutants.drawn_mutants(tmp_path, "module.py", seed=seed))


def test_a_seed_draws_each_place_once_and_no_annotation(draw):
    drawn = draw(1)
    assert drawn == draw(1)
    assert drawn != draw(2)
    assert {one.line for one in drawn} == {4, 5, 6, 7, 8}
    assert [one.operator for one in drawn if one.line == 4] == ["core/NumberReplacer"]
    for one in drawn:
        changed = one.code(SOURCE)
        assert changed != SOURCE
        compile(changed, "module.py", "exec")


def test_a_statement_is_taken_out_with_all_its_lines(draw):
    (one,) = [one for one in draw(1) if one.line == 8]
    assert one.code(SOURCE) == SOURCE.replace("    print(\n        limit,\n    )\n", "    pass\n")
