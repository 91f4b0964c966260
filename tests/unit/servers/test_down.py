from pathlib import Path
from subprocess import Popen

from ops.servers.accounts import own_folder
from ops.servers.child import Child
from ops.servers.process_tree import see, spawn, wait_until
from ops.servers.state_file import Memory, remember
from ops.settings import environment
from ops.system.down import down
from ops.system.stack_file import Stack


def started(name: str, folder: Path) -> tuple[Popen[bytes], Child]:
    """A process that is recorded under this name; a server's has it as its program's, too."""
    program = folder / name
    program.symlink_to("/bin/sleep")
    process = spawn([str(program), "60"], environment(), folder=str(folder))
    assert wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == f"{name}\n", 10)
    child = Child(name, name, (), {}, folder / "log", folder, lambda: True, process=process, seen=see(process.pid))
    return process, child


def test_each_process_that_was_left_behind_is_counted_once(tmp_path: Path) -> None:
    remember(Memory(tmp_path))
    postgres, server = started("postgres", own_folder(tmp_path / "postgres", None))
    relay, worker = started("relay", own_folder(tmp_path / "log", None))
    try:
        Stack("", "", "", "", "").keep(tmp_path, [server, worker], ready=True)

        assert "ended 2 processes that were left behind" == down(tmp_path)
        assert f"nothing is running on {tmp_path}" == down(tmp_path)
        assert [True, True] == [process.wait(10) < 0 for process in (postgres, relay)]
    finally:
        for process in (postgres, relay):
            process.kill()
            process.wait(10)
