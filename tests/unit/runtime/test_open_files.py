"""The limit of open files is raised as far as it may be."""

import subprocess
import sys

import pytest

LIMITED = "import resource as r; from ops.runtime import open_files; r.setrlimit(r.RLIMIT_NOFILE, (256, 512)); "


@pytest.mark.parametrize(("wanted", "given"), [("", 512), ("300", 300), ("600", 512), ("100", 256)])
def test_the_limit_is_raised_as_far_as_it_may_be(wanted, given) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", f"{LIMITED}print(open_files.allow({wanted}), r.getrlimit(r.RLIMIT_NOFILE))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{given} ({given}, 512)\n" == shown.stdout
