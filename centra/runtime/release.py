"""A loaded release: the merged model that answers texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, overload

from centra.errors import UsageError
from centra.progress import Progress, silent
from centra.runtime.answering import answer_batch, answers_of, logits_of
from centra.runtime.encoding import encode_queries
from centra.runtime.parts import Parts, load_parts
from centra.runtime.requests import is_one_input, parse_inputs, run_request
from centra.runtime.schedule import Profile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    import numpy as np

    from centra.data.inputs import Input
    from centra.errors import CentraError
    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskSpec
    from centra.runtime.queries import EncodedQuery, Query, TaskResult
    from centra.store import BlobReader
    from centra.tokenization.text_encoder import TextEncoder

__all__ = ["Release"]


class Release:
    """A merged model, ready to answer. Make one with :func:`centra.load_release`.

    It may be used from any number of threads at once: each request stands alone, and their answers
    are what they would be one after the other. Closing it waits for nobody: requests that have
    begun end as they would have, later ones are refused.

    A process that is forked from this one can answer with it, too, unless it is on a GPU.
    """

    def __init__(self, manifest: ReleaseManifest, parts: Parts) -> None:
        self.manifest = manifest
        self.specs: Mapping[str, TaskSpec] = {n: task.spec for n, task in parts.tasks.items()}
        """What the modules of the loaded tasks say about themselves, by task."""
        self.max_lengths: Mapping[str, int] = {
            name: parts.trunks[parts.trunk_of[name]].spec.max_length for name in parts.tasks
        }
        """How many tokens of an input each loaded task reads."""
        self._open_parts: Parts | None = parts
        self._pool = parts.pool

    @classmethod
    def load(
        cls,
        manifest: ReleaseManifest,
        reader: BlobReader,
        *,
        tasks: Collection[str] | str | None = None,
        engine: str | None = None,
        threads: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        base: Release | None = None,
        progress: Progress = silent,
    ) -> Release:
        """Load the parts of a release.

        Every part is read and checked. What another loaded release of this process has in use is
        shared with it. Tasks in int8 that the torch engine answers in a dtype of its own are
        logged.

        Args:
            manifest: what it holds.
            reader: where its blobs are; asked from several threads.
            tasks: only these, and the trunk only as deep as they need; default all.
            engine, threads, device, dtype: see :func:`centra.runtime.engines.open_engine`.
            base: a loaded release whose parts were checked then and are not read again. It may
                answer meanwhile, so loading takes a quarter of the threads.
            progress: told of each part.

        Raises:
            UsageError: see :func:`centra.runtime.engines.open_engine`; or ``base`` is closed.
            NotFoundError: the release holds no task of that name.
            FormatError: a module contradicts the manifest.
            IncompatibleError: the engine cannot compute such layers.
            BlobNotFoundError, CorruptBlobError, StoreError: a blob cannot be had.
        """
        parts = load_parts(
            manifest,
            reader,
            tasks=tasks,
            engine=engine,
            threads=threads,
            device=device,
            dtype=dtype,
            encoders=base.encoders if base else {},
            checked=base.blobs if base else (),
            beside_requests=base is not None,
            progress=progress,
        )
        return cls(manifest, parts)

    @property
    def digest(self) -> str:
        """The release's identity: the digest of its manifest."""
        return self.manifest.digest

    @property
    def tasks(self) -> list[str]:
        """The loaded tasks, sorted."""
        return sorted(self._parts.tasks)

    @property
    def engine(self) -> str:
        """The engine that answers: ``"onnx"`` or ``"torch"``."""
        return self._parts.engine

    @property
    def dtype(self) -> str | None:
        """The floating-point type of all answers; None where each task has a precision of its own."""
        return self._parts.dtype

    @property
    def encoders(self) -> Mapping[str, TextEncoder]:
        """What turns texts into tokens, by the digests of the backbones."""
        return self._parts.encoders

    @property
    def blobs(self) -> frozenset[str]:
        """The digests of the blobs that the loaded layers and tasks were made from."""
        trunks = self._parts.trunks.values()
        layers = (digest for trunk in trunks for digest in trunk.spec.layers[: trunk.depth])
        tasks = (self.manifest.tasks[name].digest for name in self._parts.tasks)
        return frozenset((*(trunk.spec.embeddings for trunk in trunks), *layers, *tasks))

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._open_parts is None

    @overload
    def predict(  # type: ignore[overload-overlap]  # A text is no list of texts.
        self,
        inputs: str | Mapping[str, Any] | Input,
        tasks: Collection[str] | str | None = None,
        *,
        top_k: int | None = None,
    ) -> dict[str, Any]: ...

    @overload
    def predict(
        self,
        inputs: Iterable[object],
        tasks: Collection[str] | str | None = None,
        *,
        top_k: int | None = None,
    ) -> list[dict[str, Any]]: ...

    def predict(
        self,
        inputs: object,
        tasks: Collection[str] | str | None = None,
        *,
        top_k: int | None = None,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Answer one input, or several.

        Args:
            inputs: a text, or an object with ``text`` (and ``text_pair``) or ``tokens``; or a list
                of these and of pairs of texts. See :meth:`centra.data.inputs.Input.parse`.
            tasks: the tasks to answer, or the only one; only the layers they need are computed.
                Default: every loaded task that takes such an input, single or pair.
            top_k: give so many best labels besides, of tasks whose kind ranks labels.

        Returns:
            Per input, in order, an object from task name to answer; see
            :meth:`centra.kinds.base.Kind.decode` for the answers. Where an input is longer than the
            task's backbone reads, the answer has ``"truncated": {"tokens", "kept"}``: how many
            tokens it has, and how many of them were read. With ``top_k`` an answer of a task that
            ranks labels has ``"top"``, a list of ``{"label", "score"}``, the best first, whatever
            its thresholds. For one input its object alone.

        Raises:
            DataError: an input is malformed, or does not suit a task that was named.
            NotFoundError: a task that this release does not hold.
            UsageError: these are no inputs, ``top_k`` is no whole number from 1 on, the release is
                closed, or it is on a GPU and was loaded before this process was forked.
            Exception: a branch failed.
        """
        parsed = parse_inputs(inputs)
        answers: list[dict[str, Any]] = [{} for _ in parsed]
        for result in run_request(self._parts, parsed, tasks, answers_of, top_k=top_k):
            for i, answer in zip(result.places, result.answers, strict=True):
                answers[i][result.task] = answer
        in_order = [dict(sorted(answer.items())) for answer in answers]
        return in_order[0] if is_one_input(inputs) else in_order

    def stream(
        self, inputs: object, tasks: Collection[str] | str | None = None
    ) -> Iterator[tuple[str, dict[int, Any]]]:
        """Answer inputs, each task as soon as its branch is done.

        Args:
            inputs, tasks: as for :meth:`predict`.

        Yields:
            A task's name and its answers by the inputs' places, from 0. Together they are those of
            :meth:`predict`; a task comes once for every 32 inputs.

        Raises:
            DataError, NotFoundError, UsageError: as :meth:`predict`, before anything is computed.
            Exception: a branch failed; raised when all other tasks of its inputs have been yielded.
        """
        # Refused here, and not when the first answer is asked for.
        running = run_request(self._parts, parse_inputs(inputs), tasks, answers_of)
        return (
            (result.task, dict(zip(result.places, result.answers, strict=True)))
            for result in running
        )

    def encode(
        self, queries: Sequence[Query], *, first: int = 1
    ) -> list[EncodedQuery | CentraError]:
        """Check queries and tokenise their inputs, for :meth:`answer`.

        Inputs, single ones and pairs, are tokenised side by side, once for each backbone that their
        tasks stand on. It computes nothing else, and may run beside anything.

        Args:
            queries: any number.
            first: the number of the first of them, where they are a part of a request.

        Returns:
            In the place of each query what was made of it, or what is wrong with it alone; its
            text names the input by its number, from 1:

            - :class:`DataError`: its input is malformed, a task does not take it, or none is left;
            - :class:`NotFoundError`: a task is not loaded;
            - :class:`UsageError`: ``top_k`` is no whole number from 1 on;
            - :class:`FormatError`: a backbone's tokenizer fails on a text.

        Raises:
            UsageError: the release is closed.
        """
        return encode_queries(self._parts, queries, range(first, first + len(queries)))

    def answer(self, batch: Sequence[EncodedQuery]) -> Iterator[TaskResult]:
        """Answer queries that this release has encoded, in one batch.

        They may ask for different tasks: the shared layers run once, each input as far up as its
        deepest task reads, and each branch runs on the inputs that ask for it.

        Args:
            batch: any number of queries; memory grows with their tokens.

        Returns:
            What each task that is asked for says, exactly once, as soon as its branch is done. What
            fails is a result with an error, and keeps no other task from its answers.

        Raises:
            UsageError: the release is closed, another encoded one of the queries, or it is on a GPU
                and was loaded before this process was forked; or, when it is iterated over, this
                process was forked since.
        """
        parts = self._parts
        parts.check_process()
        if any(one.encoded_by is not parts for one in batch):
            raise UsageError(
                "a query was encoded by another loaded release, whose tasks and tokens may be "
                "others; encode it again with the release that is to answer it",
                code="encoded-by-another-release",
            )
        return answer_batch(parts, batch, answers_of)

    def logits(
        self, inputs: object, tasks: Collection[str] | str | None = None
    ) -> dict[str, list[np.ndarray]]:
        """The raw logits behind :meth:`predict`, for comparisons.

        Args:
            inputs, tasks: as for :meth:`predict`.

        Returns:
            Per task one array per input that suits it, in order: ``(outputs,)``, or for tagging
            ``(seq, outputs)`` over the input's own tokens.

        Raises:
            DataError, NotFoundError, UsageError: as :meth:`predict`.
        """
        logits: dict[str, list[np.ndarray]] = {}
        for result in run_request(self._parts, parse_inputs(inputs), tasks, logits_of):
            arrays = [answer["logits"] for answer in result.answers]
            logits.setdefault(result.task, []).extend(arrays)
        return dict(sorted(logits.items()))

    def profile(self, inputs: object, tasks: Collection[str] | str | None = None) -> Profile:
        """How long the parts of a request take, each alone: no branch runs beside another.

        Args:
            inputs, tasks: as for :meth:`predict`.

        Returns:
            The seconds of the embeddings and shared layers, and of each task's branch with its
            decoding. Tokenising is not among them.

        Raises:
            DataError, NotFoundError, UsageError: as :meth:`predict`.
            Exception: a branch failed.
        """
        profile = Profile()
        for _ in run_request(self._parts, parse_inputs(inputs), tasks, answers_of, profile=profile):
            pass
        return profile

    def probe_logits(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """This release's logits on a task's probe, and the ones the module recorded of itself.

        Padding is cut out of tagging logits. Equal up to rounding means parity.
        """
        parts = self._parts
        parts.check_process()
        task, trunk = parts.tasks[name], parts.trunks[parts.trunk_of[name]].engine
        return parts.pool.run(lambda: task.probe_logits(trunk))

    def close(self) -> None:
        """Give back what the release holds: weights, sessions, threads.

        What other loaded releases use as well stays theirs. Closing twice does no harm.
        """
        self._open_parts = None
        self._pool.end_threads()

    def __enter__(self) -> Self:
        """The release itself.

        Raises:
            UsageError: it is closed.
        """
        _ = self._parts
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    @property
    def _parts(self) -> Parts:
        parts = self._open_parts
        if parts is None:
            raise UsageError(
                f"this release (sha256:{self.digest[:12]}) was closed; load it again to use it",
                code="release-closed",
                digest=self.digest,
            )
        return parts

    def __reduce__(self) -> NoReturn:
        """Refuse to be sent to another process.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "a loaded release cannot be sent to another process: send what it was loaded from, and "
            "load it there with centra.load_release(); or load it before the processes are forked",
            code="release-not-sendable",
        )
