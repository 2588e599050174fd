# SPDX-License-Identifier: MIT
"""The Debian package: what `make deb` builds, and Debian's own judge of it."""
import os
import re
import shutil
import subprocess

import pytest

import harness

ROOT = harness.ROOT
PACKAGE = ROOT / "build" / "monocle.deb"
CONFFILES = ["/etc/default/monocle", "/etc/grub.d/20_monocle"]


def make(where, *targets, **environment):
    """The make that runs this test has no say in it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    subprocess.run(["make", "-s", *targets], cwd=where, check=True,
                   stdout=subprocess.DEVNULL, env={**env, **environment})


@pytest.fixture(scope="module")
def package():
    make(ROOT, "build/monocle.elf", "deb")
    return PACKAGE


def field(package, name):
    return subprocess.run(["dpkg-deb", "-f", package, name], text=True,
                          check=True, capture_output=True).stdout.strip()


def test_lintian_has_nothing_to_say(package):
    changes, = (ROOT / "build" / "deb").glob("*.changes")
    done = subprocess.run(
        ["lintian", "--allow-root", "--display-info", "--pedantic", changes],
        check=False, text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_version_is_monocles(package):
    version = re.search(r'_VERSION "(.+)"',
                        (ROOT / "boot" / "version.h").read_text())[1]
    assert field(package, "Version") == version + "-1"


def test_what_is_in_it(package, tmp_path):
    subprocess.run(["dpkg-deb", "-R", package, tmp_path], check=True)
    conffiles = (tmp_path / "DEBIAN" / "conffiles").read_text().split()
    assert sorted(conffiles) == CONFFILES
    for name in CONFFILES:
        assert (tmp_path / name[1:]).read_bytes() == \
            (ROOT / "boot" / name[1:]).read_bytes()
    image = tmp_path / "boot" / "monocle.elf"
    subprocess.run(["grub-file", "--is-x86-multiboot2", image], check=True)
    subprocess.run(["strip", "-o", tmp_path / "stripped",
                    ROOT / "build" / "monocle.elf"], check=True)
    assert image.read_bytes() == (tmp_path / "stripped").read_bytes()
    done = subprocess.run([tmp_path / "usr" / "bin" / "monoclectl", "log"],
                          check=False, text=True, capture_output=True)
    assert done.returncode == 2 and "no guest of Monocle" in done.stderr


def test_pages_are_where_they_refer_to_each_other(package, tmp_path):
    subprocess.run(["dpkg-deb", "-x", package, tmp_path], check=True)
    where = tmp_path / "usr/share/doc/monocle"
    assert {path.name for path in (where / "docs").iterdir()} == \
        {path.name for path in (ROOT / "docs").iterdir()}
    for page in where.rglob("*.md"):
        for link in re.findall(r"\]\(([\w./]+)\)", page.read_text()):
            target = (page.parent / link).resolve()
            # Others are about the sources.
            assert target.is_file() or target.parent != where / "docs", link


def test_the_same_tree_gives_the_same_file(package, tmp_path):
    """Elsewhere, at another time, with another umask and another zone."""
    for path in ROOT.iterdir():
        if path.name not in ("build", ".git"):
            copy = shutil.copytree if path.is_dir() else shutil.copyfile
            copy(path, tmp_path / path.name)
    for path in tmp_path.rglob("*"):
        os.utime(path, (1e9, 1e9))
    umask = os.umask(0o077)
    try:
        make(tmp_path, "deb", TZ="Asia/Tokyo", LC_ALL="C.UTF-8")
    finally:
        os.umask(umask)
    assert (tmp_path / "build" / "monocle.deb").read_bytes() == \
        package.read_bytes()
