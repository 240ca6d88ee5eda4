"""Layers of an overlay: options in mountinfo, and which layer has a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.containers.overlay import (
    LayerStack,
    Overlay,
    parse_overlay,
    with_real_layers,
)
from ansible.module_utils.slm_baseline.host.errors import ParseError
from ansible.module_utils.slm_baseline.host.files import Host
from hypothesis import given
from hypothesis import strategies as st

DOCKER = (
    "rw,lowerdir=/var/lib/docker/overlay2/l/BWUM:/var/lib/docker/overlay2/l/3RZ2,"
    "upperdir=/var/lib/docker/overlay2/bd03/diff,workdir=/var/lib/docker/overlay2/bd03/work"
)
CONTAINERD = (
    "rw,lowerdir=31/fs:30/fs,upperdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/32/fs,"
    "workdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/32/work,index=off"
)


def test_the_options_name_the_layers_topmost_first() -> None:
    assert parse_overlay(DOCKER) == Overlay(
        ("/var/lib/docker/overlay2/l/BWUM", "/var/lib/docker/overlay2/l/3RZ2"), "/var/lib/docker/overlay2/bd03/diff"
    )
    assert parse_overlay(CONTAINERD).lower == ("31/fs", "30/fs")
    assert parse_overlay("ro,lowerdir=/a:/b,userxattr") == Overlay(("/a", "/b"), prefix="user.overlay.")


def test_layers_with_options_of_their_own_and_those_of_data_alone() -> None:
    assert parse_overlay("rw,lowerdir+=/a,lowerdir+=/b,datadir+=/c,upperdir=/u") == Overlay(("/a", "/b"), "/u", ("/c",))
    assert parse_overlay("ro,lowerdir=/a:/b::/c::/d,metacopy=on") == Overlay(("/a", "/b"), "", ("/c", "/d"))


def test_names_with_commas_colons_and_blanks() -> None:
    assert parse_overlay(r"rw,lowerdir=/a\054b\:c:/d\040e,upperdir=/u\054v").lower == ("/a,b:c", "/d e")
    assert parse_overlay(r"rw,lowerdir=/a\054b,upperdir=/u\054v").upper == "/u,v"


@pytest.mark.parametrize("options", ["", "rw", "rw,upperdir=/u", "rw,lowerdir=", "rw,lowerdir=:"])
def test_options_without_a_layer_are_refused(options: str) -> None:
    with pytest.raises(ParseError, match="lowerdir"):
        parse_overlay(options)


NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="\\"), min_size=1)


@given(st.lists(NAMES, min_size=1, max_size=6))
def test_what_the_kernel_escapes_comes_back(names: list[str]) -> None:
    # ovl_parse_layer() wants colons escaped, and seq_show_option() writes commas, blanks and `\\` in octal.
    shown = ":".join(f"/{name}".replace(":", "\\:") for name in names)
    shown = "".join(f"\\{ord(char):03o}" if char in ",= \t\n\\" else char for char in shown)
    assert parse_overlay(f"rw,lowerdir={shown},upperdir=/u").lower == tuple(f"/{name}" for name in names)


@given(st.text(max_size=200))
def test_any_text_gives_layers_or_one_error(text: str) -> None:
    try:
        assert parse_overlay(text).lower
    except ParseError:
        assert True


def docker_tree(root: Path) -> Host:
    home = root / "var/lib/docker/overlay2"
    (home / "l").mkdir(parents=True)
    for name, short in (("aa", "AAAA"), ("bb", "BBBB"), ("cc", "CCCC")):
        (home / name / "diff").mkdir(parents=True)
        (home / "l" / short).symlink_to(f"../{name}/diff")
    return Host(root)


def test_short_links_are_found_from_the_folder_of_the_mount_or_of_the_upper_layer(tmp_path: Path) -> None:
    host = docker_tree(tmp_path)
    home = "/var/lib/docker/overlay2"
    expected = (f"{home}/bb/diff", f"{home}/aa/diff")
    relative = Overlay(("l/BBBB", "l/AAAA"), "cc/diff")
    found = with_real_layers(host, relative, [f"{home}/cc/merged"])
    assert found == Overlay(expected, f"{home}/cc/diff")
    assert with_real_layers(host, Overlay(("l/BBBB", "l/AAAA"), f"{home}/cc/diff"), []) == found
    absolute = Overlay((f"{home}/l/BBBB", f"{home}/l/AAAA"), f"{home}/cc/diff")
    assert with_real_layers(host, absolute, []) == found


def test_layers_that_cannot_be_found_are_none(tmp_path: Path) -> None:
    host = docker_tree(tmp_path)
    assert with_real_layers(host, Overlay(("l/BBBB", "l/AAA")), ["/var/lib/docker/overlay2/cc/merged"]) is None
    assert with_real_layers(host, Overlay(("l/BBBB",)), []) is None


class Tree:
    """Layers in a folder, with their attributes in a table: any user may run this."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.attributes: dict[tuple[str, str], bytes] = {}

    def put(self, path: str, text: str = "x") -> None:
        whole = self.root / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text(text)

    def whiteout(self, path: str) -> None:
        whole = self.root / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(whole, 0o020000, os.makedev(0, 0))

    def mark(self, path: str, name: str, value: bytes = b"") -> None:
        self.attributes[str(self.root / path), f"trusted.overlay.{name}"] = value

    def stack(self, upper: str = "/u", lower: tuple[str, ...] = ("/b", "/a"), data: tuple[str, ...] = ()) -> LayerStack:
        for layer in (upper, *lower, *data):
            (self.root / layer.lstrip("/")).mkdir(exist_ok=True)
        return LayerStack(
            Host(self.root), Overlay(lower, upper, data), lambda path, name: self.attributes.get((path, name))
        )


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def found(stack: LayerStack, path: str) -> list[str]:
    return [entry.path for entry in stack.file(path)]


def test_the_topmost_layer_that_has_a_file_holds_it(tree: Tree) -> None:
    tree.put("a/usr/lib/one.py")
    tree.put("a/usr/lib/two.py")
    tree.put("b/usr/lib/two.py")
    tree.put("u/usr/log")
    stack = tree.stack()
    assert found(stack, "/usr/lib/one.py") == ["/a/usr/lib/one.py"]
    assert found(stack, "/usr/lib/two.py") == ["/b/usr/lib/two.py"]
    assert found(stack, "/usr/log") == ["/u/usr/log"]
    assert stack.file("/usr/log")[0].number == 0
    assert [entry.path for entry in stack.folders("/usr/lib")] == ["/b/usr/lib", "/a/usr/lib"]
    assert found(stack, "/usr/lib") == found(stack, "/no/such") == []


def test_a_whiteout_hides_what_is_below(tree: Tree) -> None:
    tree.put("a/lib/gone.py")
    tree.put("a/old/file")
    tree.whiteout("b/lib/gone.py")
    tree.whiteout("b/old")
    stack = tree.stack()
    assert found(stack, "/lib/gone.py") == []
    assert found(stack, "/old/file") == []
    assert stack.folders("/old") == []


def test_a_whiteout_of_an_overlay_in_an_overlay_is_an_empty_file_with_an_attribute(tree: Tree) -> None:
    tree.put("a/lib/gone.py")
    tree.put("b/lib/gone.py", "")
    assert found(tree.stack(), "/lib/gone.py") == ["/b/lib/gone.py"]
    tree.mark("b/lib/gone.py", "whiteout")
    assert found(tree.stack(), "/lib/gone.py") == []


def test_an_opaque_folder_and_a_file_in_place_of_a_folder_end_the_merging(tree: Tree) -> None:
    tree.put("a/lib/old.py")
    tree.put("b/lib/new.py")
    tree.put("a/data/file")
    tree.put("b/data")
    tree.mark("b/lib", "opaque", b"y")
    stack = tree.stack()
    assert found(stack, "/lib/old.py") == []
    assert found(stack, "/lib/new.py") == ["/b/lib/new.py"]
    assert found(stack, "/data/file") == []


def test_a_redirected_folder_is_looked_up_by_its_former_name_further_down(tree: Tree) -> None:
    tree.put("a/lib/python3/json.py")
    tree.put("b/lib/python/extra.py")
    tree.mark("b/lib/python", "redirect", b"python3")
    assert found(tree.stack(), "/lib/python/json.py") == ["/a/lib/python3/json.py"]
    tree.mark("b/lib/python", "redirect", b"/lib/python3")
    assert found(tree.stack(), "/lib/python/json.py") == ["/a/lib/python3/json.py"]


def test_the_content_of_a_metacopy_file_is_that_of_a_lower_one(tree: Tree) -> None:
    tree.put("a/lib/big.so", "content")
    tree.put("a/lib/former.so", "content")
    tree.put("b/lib/big.so", "")
    tree.mark("b/lib/big.so", "metacopy")
    assert found(tree.stack(), "/lib/big.so") == ["/b/lib/big.so", "/a/lib/big.so"]
    tree.mark("b/lib/big.so", "redirect", b"/lib/former.so")
    assert found(tree.stack(), "/lib/big.so") == ["/b/lib/big.so", "/a/lib/former.so"]


def test_the_content_may_lie_in_a_layer_of_data_alone(tree: Tree) -> None:
    tree.put("d/objects/ab/cd", "content")
    tree.put("b/lib/big.so", "")
    tree.mark("b/lib/big.so", "metacopy")
    tree.mark("b/lib/big.so", "redirect", b"/objects/ab/cd")
    stack = tree.stack(data=("/d",))
    assert found(stack, "/lib/big.so") == ["/b/lib/big.so", "/d/objects/ab/cd"]
    # No name of such a layer is in the overlay itself.
    assert found(stack, "/objects/ab/cd") == []


def test_a_metacopy_file_without_content_and_a_loop_of_redirects_are_none(tree: Tree) -> None:
    tree.put("b/lib/big.so", "")
    tree.mark("b/lib/big.so", "metacopy")
    assert found(tree.stack(), "/lib/big.so") == []
    tree.mark("b/lib/big.so", "redirect", b"big.so")
    assert found(tree.stack(), "/lib/big.so") == []


def test_no_link_in_a_layer_leads_elsewhere(tree: Tree) -> None:
    tree.put("secret/file")
    tree.stack()
    (tree.root / "b/lib").symlink_to(tree.root / "secret")
    assert found(tree.stack(), "/lib/file") == []
    (tree.root / "a/link").symlink_to(tree.root / "secret/file")
    assert found(tree.stack(), "/link") == []


@given(st.integers(2, 40), st.data())
def test_of_many_layers_the_one_that_the_kernel_takes_is_found(
    tmp_path_factory: pytest.TempPathFactory, count: int, data: st.DataObject
) -> None:
    """Each layer has the file, hides it, or says nothing of it: as a walk from the top down tells."""
    tree = Tree(tmp_path_factory.mktemp("layers"))
    kinds = data.draw(st.lists(st.sampled_from(["file", "whiteout", "nothing"]), min_size=count, max_size=count))
    layers = tuple(f"/l{number}" for number in range(count))
    for layer, kind in zip(layers, kinds, strict=True):
        if kind == "file":
            tree.put(f"{layer[1:]}/lib/x")
        elif kind == "whiteout":
            tree.whiteout(f"{layer[1:]}/lib/x")
    expected = next((number for number, kind in enumerate(kinds) if kind != "nothing"), None)
    paths = found(tree.stack("", layers), "/lib/x")
    has_file = expected is not None and kinds[expected] == "file"
    assert paths == ([f"/l{expected}/lib/x"] if has_file else [])
