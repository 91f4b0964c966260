import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from ops.runtime.schema_check import MIGRATIONS, judge, known
from pipeline.store.admin.schema_version import Found


def test_the_versions_are_those_that_alembic_knows() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)

    assert [each.revision for each in reversed(list(scripts.walk_revisions()))] == known()
    assert [known()[-1]] == scripts.get_heads()


@pytest.mark.parametrize(
    ("versions", "filled", "state", "told"),
    [
        (None, False, "empty", "run `waxseal migrate`"),
        ([], False, "empty", "run `waxseal migrate`"),
        (["0001"], True, "older", "is at 0001, this waxseal needs"),
        (["9999"], True, "newer", "use a newer waxseal"),
        (None, True, "broken", "not the table alembic_version"),
        ([], True, "broken", "holds nothing"),
        (["0001", "0002"], True, "broken", "holds 0001, 0002"),
        (["0000"], True, "broken", "'0000', which is no version"),
        (["5f3a"], True, "broken", "'5f3a', which is no version"),
    ],
)
def test_a_schema_is_judged_by_its_version_table(versions: list[str] | None, filled: bool, state: str, told: str) -> None:
    judged, said = judge(Found(versions, filled))

    assert state == judged
    assert told in said
    assert "\n" not in said


def test_the_newest_schema_is_the_one_to_work_with() -> None:
    assert "current" == judge(Found([known()[-1]], filled=True))[0]
