from pathlib import Path

from ops.servers.binaries import find_erlang_library, find_rabbitmq
from ops.servers.erlang_start import module_folders, without_plugins


def application(path: Path) -> Path:
    (path / "ebin").mkdir(parents=True)
    return path


def test_the_folders_of_the_installed_broker_come_in_the_order_of_use() -> None:
    plugins = find_rabbitmq().resolve().parents[1] / "plugins"
    library = find_erlang_library()
    assert library is not None

    folders = module_folders((plugins, library))

    assert ["rabbit", "kernel", "stdlib"] == [folder.parent.name.partition("-")[0] for folder in folders[:3]]
    assert all((folder / f"{folder.parent.name.partition('-')[0]}.app").exists() for folder in folders)


def test_an_application_of_two_versions_and_one_that_a_command_line_would_cut_are_left_to_erlang(tmp_path: Path) -> None:
    for name in ("plugins/ra-2.2.0", "plugins/rabbit-3.10.8", "plugins/rabbit_common-3.10.8", "lib/kernel-8", "lib/kernel-9"):
        application(tmp_path / name)
    application(tmp_path / "a library" / "stdlib-4.2")

    found = module_folders(tmp_path / root for root in ("plugins", "lib", "a library", "none"))

    assert [tmp_path / f"plugins/{name}/ebin" for name in ("rabbit-3.10.8", "ra-2.2.0", "rabbit_common-3.10.8")] == found


def test_the_folder_has_the_broker_of_the_installed_version_and_no_other_plugin(tmp_path: Path) -> None:
    old, new, folder = tmp_path / "old", tmp_path / "new", tmp_path / "plugins"
    for name in ("old/rabbit-3.10.8", "new/rabbit-4.0.5", "new/rabbit_common-4.0.5", "new/ranch-2.1.0"):
        application(tmp_path / name)

    assert folder == without_plugins(old, folder, None)
    assert folder == without_plugins(new, folder, None)

    (link,) = folder.iterdir()
    assert (new / "rabbit-4.0.5", "rabbit-4.0.5") == (link.readlink(), link.name)


def test_all_plugins_are_given_where_no_folder_can_stand_for_them(tmp_path: Path) -> None:
    application(tmp_path / "rabbit-3.10.8")

    assert tmp_path == without_plugins(tmp_path, tmp_path / "a:b", None)
    application(tmp_path / "rabbit-4.0.5")
    assert tmp_path == without_plugins(tmp_path, tmp_path / "plugins", None)
