"""What documentation and samples say is what the program has."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from oslo_config import generator

from agent import errors
from agent.conf import OPTIONS
from agent.errors import AgentError
from agent.host.libvirt_abilities import SINCE
from agent.operations import VERBS
from tests.unit.house.source import ROOT, modules

DOCS = ROOT / "docs"

SAMPLE = ROOT / "etc" / "attachment-agent.conf.sample"

BUILD = (sys.executable, "-m", "sphinx", "-W", "-q", "-E", "-b", "html")

SHARED_CODES = {"Unavailable": "reaches callers as the internal trouble of an open operation"}
"""Classes without a code of their own."""


def error_classes() -> list[type[AgentError]]:
    found = [AgentError, *AgentError.__subclasses__()]
    assert not [cls for child in found[1:] for cls in child.__subclasses__()], "one level is enough"
    return found[1:]


class TestWire:
    def test_each_has_a_code_of_its_own(self) -> None:
        codes = [cls.code for cls in error_classes() if cls.__name__ not in SHARED_CODES]
        assert len(codes) == len(set(codes))
        assert set(errors.ERRORS) == set(codes)

    def test_every_code_is_in_the_documentation_of_the_wire(self) -> None:
        explained = set(re.findall(r"``([a-z]+(?:-[a-z]+)*)``", (DOCS / "wire.rst").read_text()))
        assert set(errors.ERRORS) - explained == set()

    def test_every_notification_of_no_operation_is_too(self) -> None:
        code = "".join(path.read_text() for path in (ROOT / "agent" / "service").glob("*.py"))
        told = set(re.findall(r'^[A-Z_]+ = "(attachment\.[a-z_.]+)"$', code, re.MULTILINE))
        assert len(told) > 3
        wire = (DOCS / "wire.rst").read_text()
        assert [event for event in sorted(told) if f"``{event}``" not in wire] == []

    def test_every_finding_of_an_audit_is_explained(self) -> None:
        code = (ROOT / "agent" / "service" / "audit.py").read_text()
        kinds = set(re.findall(r'"kind": "([a-z-]+)"|_finding\(\s*"([a-z-]+)"', code))
        explained = (DOCS / "attachctl.rst").read_text()
        missing = [kind for kind in map("".join, sorted(kinds)) if f"``{kind}``" not in explained]
        assert len(kinds) > 10
        assert missing == []

    def test_every_ability_that_may_be_missing_is_explained(self) -> None:
        wire = (DOCS / "wire.rst").read_text()
        assert [ability for ability in SINCE if f"\n``{ability}`` " not in wire] == []

    @pytest.mark.parametrize("error", error_classes(), ids=lambda cls: cls.__name__)
    def test_it_says_what_it_means(self, error: type[AgentError]) -> None:
        assert error.__doc__
        assert error.__doc__ != AgentError.__doc__


class TestSample:
    """etc/attachment-agent.conf.sample, made by oslo-config-generator."""

    def test_our_part_is_what_the_options_say(self, tmp_path: Path) -> None:
        """Other projects' parts follow the versions that are installed: they are not compared."""
        path = tmp_path / "sample"
        generator.main(["--namespace", "agent", "--wrap-width", "96", "--output-file", str(path)])
        assert _our_parts(SAMPLE.read_text()) == _our_parts(path.read_text()), (
            "write it anew: oslo-config-generator --config-file etc/oslo-config-generator.conf"
        )

    def test_every_option_is_in_it(self) -> None:
        parts = _our_parts(SAMPLE.read_text())
        for group, options in OPTIONS.items():
            for option in options:
                assert re.search(rf"^#{option.name} =", parts[group], re.M), (group, option.name)


class TestDocumentation:
    @pytest.mark.parametrize(
        "package", sorted({module.layer for module in modules("agent") if module.layer})
    )
    def test_every_part_of_the_house_is_mentioned(self, package: str) -> None:
        everything = "".join(path.read_text() for path in DOCS.glob("*.rst"))
        assert re.search(rf"``agent[./]{package}\b", everything)

    @pytest.mark.parametrize("page", ["wire", "plans", "cancel"])
    def test_every_verb_is_there(self, page: str) -> None:
        said = (DOCS / f"{page}.rst").read_text()
        assert [verb for verb in VERBS if not re.search(rf"\b{verb}\b", said)] == []

    @pytest.mark.skipif(
        importlib.util.find_spec("sphinx") is None, reason="sphinx is not installed"
    )
    def test_it_builds_without_a_warning(self, tmp_path: Path) -> None:
        said = subprocess.run(
            [*BUILD, "-d", tmp_path / "trees", DOCS, tmp_path / "html"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert said.returncode == 0, said.stdout + said.stderr


def _our_parts(sample: str) -> dict[str, str]:
    """{group: the text after "From agent", up to the next project or group}."""
    parts: dict[str, str] = {}
    for group in re.split(r"^(?=\[)", sample, flags=re.M):
        match = re.match(r"\[(\w+)\]", group)
        ours = re.search(r"^# From agent\n(.*?)(?=^#\n# From |\Z)", group, re.M | re.S)
        if match and ours:
            parts[match.group(1)] = ours.group(1).strip()
    return parts
