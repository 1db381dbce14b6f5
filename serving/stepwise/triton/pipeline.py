"""``<name>``: the model of a pipeline, from a request's tensors to its pictures or videos."""

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stepwise.batching.active_requests import id_in_use
from stepwise.batching.admission import Admission
from stepwise.batching.batcher import Batcher
from stepwise.batching.door import Door
from stepwise.batching.loop import Loop
from stepwise.batching.metrics import Metrics
from stepwise.batching.request import Float32, Request, Summary, encoded
from stepwise.description.errors import Cancelled, InvalidRequest, RequestError
from stepwise.description.fields import Array, text
from stepwise.description.settings import Settings
from stepwise.description.spec import CANCEL
from stepwise.encoding.metrics import cache_metrics
from stepwise.families import FAMILIES
from stepwise.request import log, peers, shared_state
from stepwise.request.call_limit import CallLimit
from stepwise.request.events import Event
from stepwise.request.ids import SHORTEST, can_be_guessed, private
from stepwise.request.prepare import Preparer
from stepwise.triton.bridge import (
    Graphs,
    Input,
    Prepared,
    as_request_error,
    metric_families,
    parameter,
    unpack,
)
from stepwise.triton.decoding import Decoding
from stepwise.triton.encoding import Encoding
from stepwise.triton.reply import Reply
from stepwise.triton.threads import started

_LONGEST_ID = 256
# For the responses of a pipeline that cannot go on.
_LAST_SECONDS = 10.0
# Requests that are encoded at once; more wait. Enough to fill the batches of every encoder.
_ENCODED_AT_ONCE = 8


@dataclass(eq=False)
class _Job:
    """A request that is to be encoded. ``request`` owns the memory of the ``inputs``."""

    id: str
    reply: Reply
    request: Any
    inputs: Mapping[str, Array]
    settings: Settings
    cancelled: bool = False

    def problem(self) -> RequestError | None:
        """The error of a request that nobody waits for."""
        if self.cancelled:
            return Cancelled("the request was cancelled")
        return Cancelled("the client has left") if self.reply.left() else None


class Pipeline:
    """Prepares requests, encodes them, denoises all of them in one running batch and decodes them.

    One model does all of it, because each further model on a request's way costs a millisecond of
    CPU time and a process. Only the graphs are models of their own.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Read the manifest, the batch caps and the tokenizers in this model's folder, and start
        the threads.
        """
        self._name = parameter(args, "name")
        self._family = FAMILIES[parameter(args, "pipeline")]
        self._prepare = Preparer(self._family, Path(args["model_repository"]))
        self._peer_header = peers.header()
        shared = shared_state.folder()
        # Requests that wait for the encoders or are being encoded, by ID.
        self._arriving: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._open = shared_state.OpenRequests(shared, self._name)
        self._graphs = Graphs(self._name, CallLimit(shared, self._name))
        self._encoding = Encoding(self._family, self._graphs)
        self._metrics = Metrics(self._name, metric_families())
        self._batcher = Batcher(
            self._predict,
            self._family.capacity,
            self._metrics,
            held=self._family.makes_videos,
            # Texts are larger than latents, and the same in many calls.
            prepare=lambda conditioning: {k: Prepared(k, v) for k, v in conditioning.items()},
        )
        self._metrics.follow(self._batcher, cache_metrics(self._name, self._encoding.cache))
        self._decoding = Decoding(
            self._family, self._graphs, stop=self._batcher.stop, release=self._batcher.release
        )
        self._loop = Loop(self._batcher, died=self._die)
        self._workers = started(_ENCODED_AT_ONCE, "encode")
        self._door = Door(
            Admission[_Job](self._family.capacity, _ENCODED_AT_ONCE),
            self._workers,
            occupied=lambda: self._batcher.occupied,
            run=self._encode,
            problem=_Job.problem,
            refuse=self._refuse_job,
        )

    def execute(self, requests: list[Any]) -> None:
        """Queue requests, or cancel some; responses come from another thread."""
        for request in requests:
            self._open.begin()
            reply = Reply(request.get_response_sender(), self._open.end)
            try:
                inputs = unpack(request)
                if CANCEL.name in inputs:
                    self._cancel(text(inputs, CANCEL.name, "", _LONGEST_ID))
                    reply.send(None, final=True)
                else:
                    self._accept(request, inputs, reply)
            except Exception as error:
                reply.fail(error)

    def finalize(self) -> None:
        """Finish running requests."""
        self._metrics.close()
        self._door.close()
        self._workers.shutdown()
        self._encoding.close()
        self._loop.close()
        self._decoding.close()

    def _die(self) -> None:
        """Exit: the server monitors only processes, and this one is useless without its loop."""
        self._decoding.close(_LAST_SECONDS)
        os._exit(1)

    def _cancel(self, request_id: str) -> None:
        if can_be_guessed(request_id):
            raise InvalidRequest(
                f"cancel: got {request_id!r}, which others can guess; only a request with an ID of "
                f"at least {SHORTEST} characters can be cancelled"
            )
        with self._lock:
            arriving = self._arriving.get(request_id)
            if arriving is not None:
                arriving.cancelled = True
                return
        if not self._batcher.cancel(request_id):
            self._decoding.cancel(request_id)

    def _accept(self, request: Any, inputs: dict[str, Array], reply: Reply) -> None:
        """Check a request, turn its prompts into token ids and queue it for the encoders."""
        request_id, asked = private(request.request_id()), log.asked(inputs)
        try:
            given = json.loads(request.parameters() or "{}")
            peer = peers.peer(given, self._peer_header, self._family)
            fed, settings = self._prepare(inputs, time.monotonic())
            settings = replace(settings, asked=asked, peer=peer)
            self._enter(_Job(request_id, reply, request, {**inputs, **fed}, settings))
        except Exception as error:
            self._refuse({"id": request_id, "pipeline": self._name, "asked": asked}, reply, error)

    def _enter(self, job: _Job) -> None:
        """Queue a request for the encoders, where a cancellation finds it."""
        with self._lock:
            if job.id in self._arriving:
                raise id_in_use(job.id)
            self._arriving[job.id] = job
        try:
            self._door.submit(job, job.settings)
        except RequestError:
            self._leave(job)
            raise

    def _leave(self, job: _Job) -> None:
        with self._lock:
            del self._arriving[job.id]

    def _encode(self, job: _Job) -> None:
        """Encode a request and queue it for the denoiser."""
        try:
            if (problem := job.problem()) is not None:
                raise problem
            embeddings = self._encoding.encode(job.inputs, job.settings)
            request = self._request(job.id, job.settings, embeddings, job.reply)
            with self._lock:
                if job.cancelled:
                    raise Cancelled("the request was cancelled")
                self._loop.submit(request)
                del self._arriving[job.id]
        except Exception as error:
            self._refuse_job(job, error)

    def _refuse_job(self, job: _Job, error: Exception) -> None:
        self._leave(job)
        self._refuse(self._described(job.id, job.settings), job.reply, error)

    def _refuse(self, described: log.Record, reply: Reply, error: Exception) -> None:
        refused = as_request_error(error)
        try:
            log.write({**described, "outcome": refused.code, "error": str(refused)})
        finally:
            reply.fail(refused)

    def _request(
        self, request_id: str, settings: Settings, embeddings: Mapping[str, Array], reply: Reply
    ) -> Request:
        """The request for the denoiser; its responses go to the decoder."""

        def report(event: Event, latents: Float32 | None, summary: Summary | None) -> None:
            if summary is not None:
                record = {**self._described(request_id, settings), **asdict(summary)}
                event = replace(event, record=record)
            self._decoding.submit(event, latents, reply)

        def fail(error: RequestError, summary: Summary) -> None:
            described = {**self._described(request_id, settings), **asdict(summary)}
            # A request that failed in decoding was stopped here.
            error = reply.error or error
            log.write({**described, "outcome": error.code, "error": str(error)})
            self._decoding.fail((*settings.member, request_id), error, reply)

        return encoded(self._family, request_id, settings, embeddings, report, fail)

    def _described(self, request_id: str, settings: Settings) -> log.Record:
        """The entry of a request in the log, without its outcome."""
        return {
            "id": request_id,
            "pipeline": self._name,
            "asked": settings.asked,
            **({"peer": settings.peer} if settings.peer else {}),
            "seed": settings.seed,
            "resolution": settings.resolution,
            "sampler": settings.sampler,
            "steps": settings.steps,
        }

    def _predict(
        self, latents: Float32, timesteps: Float32, conditioning: Mapping[str, Prepared]
    ) -> Float32:
        denoiser = self._family.denoiser
        names = [tensor.name for tensor in denoiser.inputs]
        values: dict[str, Input] = {**conditioning, names[0]: latents, names[1]: timesteps}
        outputs = self._graphs.run(denoiser, {name: values[name] for name in names})
        prediction: Float32 = outputs[denoiser.outputs[0].name]
        return prediction
