"""The counts behind rows of a leaderboard: intervals and paired tests, by the statistic that each score declares."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from segladder.errors import ConfigError, DataError
from segladder.foreign import NO_ARCHIVE
from segladder.metrics.bootstrap import Comparison, Runs, holm
from segladder.metrics.counts import COUNTS, Counts
from segladder.metrics.scores import FromCounts
from segladder.report.leaderboard import Row, Table, rank
from segladder.report.record import Record

ARCHIVE = "counts.zip"  # of a study, beside its records: NAME of a run's counts is `member`
HELD = 32  # counts in memory, those of a row or some rows: of many images they are large
NOT_COUNTED = "counts give another score"  # a row whose records or counts were edited, or are of other runs
SAME = 1e-6  # scores that lie closer are one
RunKey = tuple[str, str]  # id of a run and hash of the protocol that scored it


def member(record: Record) -> str:
    """The name of a run's counts in a study's archive."""
    return f"{record.id}-{record.protocol.get('hash')}.npz"


class NotKept(DataError):
    """No counts lie beside a record."""


class Archives(ExitStack):
    """Where the counts of runs are read; the archive of each study is opened once, and closed with this."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: dict[Path, zipfile.ZipFile] = {}
        self.callback(self._opened.clear)

    def counts(self, record: Record, folder: Path) -> Counts:
        """The counts of a run: beside its record, or in the archive of its study.

        Raises:
            NotKept: there are none.
            DataError: they are damaged, or of an older version.
        """
        archive, alone = folder / ARCHIVE, folder / COUNTS
        if not (archive.exists() or alone.exists()):
            raise NotKept(f"{alone}: no counts were kept; score the run again to write them")
        if odd := [file for file in (archive, alone) if file.exists() and not file.is_file()]:
            raise DataError(f"{odd[0]}: no regular file, expected counts")
        if not archive.exists():
            return Counts.load(alone)
        try:
            if archive not in self._opened:
                self._opened[archive] = self.enter_context(zipfile.ZipFile(archive))
            with self._opened[archive].open(member(record)) as stored:
                return Counts.load(stored, f"{archive}:{member(record)}")
        except KeyError as error:
            raise NotKept(f"{archive}: no counts of {member(record)}") from error
        except NO_ARCHIVE as error:
            raise DataError(f"{archive}: damaged counts of {member(record)} ({error})") from error


class Counted(ExitStack):
    """Runs with their counts, of which those of a few are held; archives stay open until it is closed.

    Args:
        found: records with the folder each lies in.

    Attributes:
        faults: counts that lie there and are of no use, a line each, as far as they were asked for.
    """

    def __init__(self, found: Iterable[tuple[Record, Path]]) -> None:
        super().__init__()
        self._archives = self.enter_context(Archives())
        self.faults: list[str] = []
        self.found = list(found)
        self.records = [record for record, _ in self.found]
        self.by_id = {record.id: record for record in sorted(self.records, key=lambda record: record.time)}
        self._places = {(place[0].id, str(place[0].protocol.get("hash") or "")): place for place in self.found}
        self._counts: dict[RunKey, Counts] = {}  # of the runs that were asked for last
        self._missing: dict[RunKey, DataError] = {}
        self._prepared: dict[tuple[str, tuple[str, ...], FromCounts], Runs] = {}

    def tables(self, metric: str | None = None) -> list[Table]:
        """The leaderboard's tables, their rows with intervals. Raises ConfigError for a metric that no run has."""
        scores = sorted({score for record in self.records for score in record.metrics})
        if metric not in (None, *scores):
            raise ConfigError(f"metric={metric}: no run has it, expected one of {', '.join(scores)}")
        return [self.with_intervals(table) for table in rank(self.records, metric)]

    def of_each_fold(self, table: Table) -> dict[int, Table]:
        """A table of each fold by itself, by fold."""
        key = table.hash, table.fingerprint
        folds: dict[int, list[Record]] = {}
        for record in self.records:
            if record.fold is not None and (record.protocol.get("hash"), record.data.get("val_fingerprint")) == key:
                folds.setdefault(record.fold, []).append(replace(record, fold=None))
        alone = {fold: rank(records, table.metric, self.by_id)[0] for fold, records in sorted(folds.items())}
        return {fold: self.with_intervals(part) for fold, part in alone.items()}

    def of(self, table: Table, row: Row) -> list[Counts]:
        """The counts of a row's runs. Raises DataError where some are missing or damaged, ConfigError without a run."""
        if not row.runs:
            raise ConfigError("compare: a row without a seed that has every fold, expected one")
        return [self._read((run, table.hash)) for run in row.runs]

    def _read(self, key: RunKey) -> Counts:
        if key in self._missing:
            raise self._missing[key]
        found = self._counts.pop(key, None)
        if found is None:
            try:
                found = self._archives.counts(*self._places[key])
            except DataError as error:
                self._missing[key] = error
                self.faults += [] if isinstance(error, NotKept) else [str(error)]
                raise
        self._counts[key] = found
        if len(self._counts) > HELD:
            del self._counts[next(iter(self._counts))]
        return found

    def _runs(self, table: Table, row: Row, rule: FromCounts) -> Runs:
        """A row's runs, prepared once for all of its comparisons. Raises DataError where its score is not theirs."""
        key = _key(table, row, rule)
        if key not in self._prepared:
            counts = self.of(table, row)
            try:
                runs = Runs.of(counts, rule, seedless=not row.seeds)
                value = float(runs.under_draws(draws=0)[0])
            except (DataError, ValueError, LookupError) as error:  # strangers' records and counts may not fit together
                raise DataError(f"{row.runs[0]}: {table.metric} does not follow from its counts ({error})") from error
            if row.value is not None and not abs(value - row.value) <= SAME:  # nan is another
                raise DataError(
                    f"{row.runs[0]}: {table.metric} is {row.value:.4f} by its record, {value:.4f} by its counts"
                )
            self._prepared[key] = runs
        return self._prepared[key]

    def with_intervals(self, table: Table) -> Table:
        """The table with the 95 % interval of every row whose counts were kept."""
        rule = table.score.statistic
        if rule is None:
            return table
        return replace(table, rows=[self._with_interval(table, row, rule) for row in table.rows])

    def _with_interval(self, table: Table, row: Row, rule: FromCounts) -> Row:
        try:
            if _key(table, row, rule) not in self._prepared:
                self.of(table, row)
        except (NotKept, ConfigError):
            return row
        except DataError:
            return replace(row, low=None, high=None)
        try:
            _, low, high = self._runs(table, row, rule).estimate()
        except DataError as error:
            self.faults.append(str(error))
            return replace(row, low=None, high=None, note="; ".join(filter(None, (row.note, NOT_COUNTED))))
        return row if math.isnan(low) else replace(row, low=low, high=high)

    def compare(self, table: Table, first: Row, second: Row, second_table: Table | None = None) -> Comparison:
        """The first row minus the second by what ranks the table.

        Raises:
            ConfigError: the score has no such test.
            DataError: counts are missing, or are of different images.
        """
        rule = _rule(table)
        return self._runs(table, first, rule).minus(self._runs(second_table or table, second, rule))

    def compared(self, table: Table, pairs: Sequence[tuple[Row, Row]]) -> list[Comparison | None]:
        """The comparisons that stand together in a table, adjusted for their number; None where counts are missing."""
        found: list[Comparison | None] = []
        for first, second in pairs:
            try:
                found.append(self.compare(table, first, second))
            except (DataError, ConfigError):
                found.append(None)
        adjusted = iter(holm([one for one in found if one is not None]))
        return [None if one is None else next(adjusted) for one in found]

    def with_significance(self, table: Table) -> Table:
        """The table with every row compared with its best one; rows without counts are left alone.

        Rows of other supervisions are compared too: they answer the same questions.
        """
        best = table.best
        if best is None:
            return table
        others = [n for n, row in enumerate(table.rows) if row.value is not None and row is not best]
        rows = list(table.rows)
        for n, one in zip(others, self.compared(table, [(rows[n], best) for n in others]), strict=True):
            rows[n] = replace(rows[n], against_best=one)
        return replace(table, rows=rows)


def _key(table: Table, row: Row, rule: FromCounts) -> tuple[str, tuple[str, ...], FromCounts]:
    return table.hash, tuple(row.runs), rule


def _rule(table: Table) -> FromCounts:
    """How the score that ranks follows from counts. Raises ConfigError where it does not say."""
    if table.score.statistic is not None:
        return table.score.statistic
    tested = [score.name for score in table.declared.scores if score.statistic is not None]
    expected = f"expected metric= {', '.join(tested)}" if tested else f"nor of another score of {table.protocol}"
    raise ConfigError(f"compare: no paired test of {table.metric}, {expected}")
