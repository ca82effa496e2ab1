"""`imgsearch eval`."""

from typing import TYPE_CHECKING, Annotated

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_json, print_line, stdout

if TYPE_CHECKING:
    from imgsearch.analysis.evaluate import EvalReport


def evaluate(
    label: Annotated[
        str,
        typer.Option(
            metavar="FIELD",
            help="Metadata field whose value similar images share.",
            show_default=False,
        ),
    ],
    sample: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of sample queries (fixed seed).")
    ] = 500,
    everything: Annotated[bool, typer.Option("--all", help="Query with every image.")] = False,
    by_score: Annotated[
        bool, typer.Option("--by-score", help="Also show the precision of hits by their score.")
    ] = False,
    store: options.Store = None,
    collection: options.Collection = config.DEFAULT_COLLECTION,
    as_json: options.Json = False,
) -> None:
    """Measure search quality: do the hits of an image share its label?

    Each query is an image of the collection, which is excluded from its own hits. Precision (P@1,
    P@10) is the share of the first 1 or 10 hits that have the query's label; mAP@10 also depends on
    their ranks. Recall is the share of the exact hits that the index finds, without a filter and
    with one on the label. --by-score shows what a score is worth: the precision of the hits with
    the highest scores, of the next ones, and so on; --json always has it.
    """
    from imgsearch.analysis.evaluate import evaluate as run
    from imgsearch.stores import open_store

    with open_store(store) as opened, Display(quiet=as_json) as display:
        report = run(opened.open(collection), label, None if everything else sample, display)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
        if by_score:
            _print_scores(report)


def _print(report: "EvalReport") -> None:
    from rich import box
    from rich.table import Table

    print_line(
        f"{report.queries:,} queries of {report.labelled:,} labelled images of "
        f"{report.images:,}; collection {report.collection}, {report.model}, by {report.label}"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("search")
    for column in ("P@1", "P@10", "mAP@10", "recall@10", "with a filter"):
        table.add_column(column, justify="right")
    index, exact = report.index, report.exact
    values = (index.p1, index.p10, index.map10, report.recall, report.filtered_recall)
    table.add_row("index", *(f"{value:.4f}" for value in values))
    values = (exact.p1, exact.p10, exact.map10, 1.0, 1.0)
    table.add_row("exact", *(f"{value:.4f}" for value in values))
    stdout().print(table)
    if report.vector_index:
        print_line(
            "vector index: "
            + ", ".join(f"{name} {value}" for name, value in report.vector_index.items())
        )


def _print_scores(report: "EvalReport") -> None:
    from rich import box
    from rich.table import Table

    from imgsearch.calibration import percentile_text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("score from", "closer than", "hits", "precision"):
        table.add_column(column, justify="right")
    for each in report.scores:
        rarity = "" if each.percentile is None else percentile_text(each.percentile)
        table.add_row(f"{each.score:.4f}", rarity, f"{each.hits:,}", f"{each.precision:.4f}")
    stdout().print(table)
