"""Notes in plain words, each derived from a result by one stated rule.

A rule takes a result document and returns a sentence or two, or None if it does not apply. Its docstring states its
threshold; docs/report.md lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from analysis.baseline.notes import device as rules_device
from analysis.baseline.notes import memory as rules_memory
from analysis.baseline.notes import samples as rules_samples
from analysis.baseline.notes import time as rules_time
from analysis.baseline.notes import tuning as rules_tuning
from analysis.baseline.result import Result
from analysis.render.markdown import Markdown

NoteRule = Callable[[Result], str | None]

OTHER_DEVICES: tuple[NoteRule, ...] = (
    rules_device.gpu_unseen,
    rules_device.gpu_left_out,
    rules_device.gpu_shared,
    rules_device.weights_off_gpu,
)
"""Why the figures are not those of the host's GPUs alone; nothing else means much then."""

HELPS: tuple[NoteRule, ...] = (
    rules_time.no_bytecode,
    rules_time.kernels_compiled,
    rules_time.not_required,
    rules_time.imports_dominate,
    rules_time.imports_unknown,
    rules_time.cold_is_warm,
    rules_time.weights_read_late,
    rules_time.disk_share,
    rules_time.gpu_limits,
    rules_time.gpu_state,
    rules_time.one_time_work,
)
"""What the first token waits for, and what would shorten it."""

SETTINGS: tuple[NoteRule, ...] = (
    rules_tuning.not_as_asked,
    rules_tuning.host_notes,
    rules_tuning.side_effects,
)
"""What is to be known of the host's settings."""

SETTINGS_TABLE: tuple[NoteRule, ...] = (rules_tuning.waits_for_systemd,)
"""What explains a column of the table of settings."""

MEMORY: tuple[NoteRule, ...] = (
    rules_memory.weights_file_backed,
    rules_memory.weights_cast,
    rules_memory.thp_backed,
    rules_memory.no_huge_page_used,
)
"""What backs the memory."""

FOLDED_MEMORY: tuple[NoteRule, ...] = (rules_memory.file_pmd,)
"""What explains a row of the folded memory table."""

TRUST: tuple[NoteRule, ...] = (
    rules_samples.excluded_samples,
    rules_samples.noisy_host,
    rules_samples.few_samples,
    rules_samples.wide_interval,
    rules_samples.guest_cold,
    rules_samples.free_page_reporting,
    rules_samples.no_psi,
)
"""How far the figures can be trusted."""

RULES: tuple[NoteRule, ...] = (*OTHER_DEVICES, *HELPS, *SETTINGS, *SETTINGS_TABLE, *MEMORY, *FOLDED_MEMORY, *TRUST)


def notes(result: Result, rules: Iterable[NoteRule] = RULES) -> list[Markdown]:
    """Return the notes of all rules that apply to a result, the most important first."""
    return [Markdown(note) for rule in rules if (note := rule(result))]
