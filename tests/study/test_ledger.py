"""Every claim of the papers once, beside the answers of the studies that asked it."""

from pathlib import Path

import pytest
from documents import ROOT

from headwise.config import to_dict
from headwise.errors import UserError
from headwise.files import write_json
from headwise.report.pages.claims import claims_markdown
from headwise.report.reading.study import FINDINGS_FILE, Answer, ClaimFound, StudyFindings
from headwise.report.reading.study import Tested as Contrasted
from headwise.study.ledger import ledger, write_ledger
from headwise.study.presets import PRESETS, preset

EVIL = "<script>alert(1)</script>"


def write_study(folder: Path, answer: Answer, seeds: int = 5, needed: int | None = 9) -> Path:
    """A study of the preset `heads` that asked its first claim."""
    claim = preset("heads", "small").claims[0]
    tested = Contrasted(
        name="mlp − none",
        measure="linear/h",
        expects="above",
        unit="points",
        value=0.031,
        answer=answer,
        verdict="not shown",
        seeds=seeds,
        seeds_needed=needed,
    )
    found = ClaimFound(
        name=claim.name,
        says=claim.says,
        source=claim.source,
        paper=claim.paper,
        answer=answer,
        words=f"mlp − none +3.1 points {EVIL}.",
        tested=(tested,),
    )
    findings = StudyFindings(
        name="heads",
        asks="?",
        scale=f"images of {folder.name}",
        axes={"head": ["mlp", "none"]},
        seeds=5,
        arms=(),
        claims=(found,),
        figures=(),
    )
    folder.mkdir()
    write_json(folder / FINDINGS_FILE, to_dict(findings))
    return folder


def test_every_claim_of_every_preset_is_in_it() -> None:
    rows = ledger([])
    asked = [(name, claim.name) for name in PRESETS for claim in preset(name, "small").claims]
    assert [(row.study, row.claim) for row in rows][: len(asked)] == asked
    assert all(row.answer is None and row.says and row.source and row.command for row in rows)


def test_each_study_is_a_line_of_its_claim(tmp_path: Path) -> None:
    folders = [write_study(tmp_path / "a", "supported"), write_study(tmp_path / "b", "cannot tell")]
    rows = ledger(folders)
    first, second, third = rows[:3]
    assert (first.answer, first.scale, first.folder) == (
        "supported",
        "images of a",
        str(folders[0]),
    )
    assert (second.answer, second.decides) == ("cannot tell", "about 9 seeds")
    assert first.claim == second.claim != third.claim
    assert third.answer is None
    assert len(rows) == len(ledger([])) + 1


@pytest.mark.parametrize(
    ("seeds", "needed", "decides"),
    [(3, 9, "5 seeds"), (5, None, "more test images"), (7, 6, "about 8 seeds")],
)
def test_what_would_decide_it(tmp_path: Path, seeds: int, needed: int | None, decides: str) -> None:
    folder = write_study(tmp_path / "a", "cannot tell", seeds, needed)
    assert ledger([folder])[0].decides == decides


def test_the_pages_say_who_claims_it_and_what_was_found(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", "cannot tell")
    page, markdown = write_ledger([folder], tmp_path)
    text, html = markdown.read_text(), page.read_text()
    row = ledger([folder])[0]
    assert f"**cannot tell**: {row.ours} (5 seeds; images of a; {folder}; to decide it:" in text
    assert "1 cannot tell" in text
    assert f"{len(ledger([])) - 2} not asked yet" in text  # one was asked, one has another command
    assert "To ask: `headwise study run heads --budget small --out runs/heads`. It takes" in text
    assert "script" not in html.replace("&lt;script&gt;", "").replace("&lt;/script&gt;", "")
    assert '<a href="https://arxiv.org/abs/2002.05709">' in html
    assert "http" not in html.replace("https://arxiv.org/abs/", "").replace("http://www.w3.org", "")


def test_a_directory_without_findings_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be a study that has findings"):
        write_ledger([tmp_path], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_page_of_the_docs_is_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    studies = sorted(Path("docs/studies").glob("*"))
    written = Path("docs/claims.md").read_text()
    assert written == claims_markdown(ledger(studies)), "make claims"
