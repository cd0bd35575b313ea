"""From the first step of a stage to its published checkpoint."""

from __future__ import annotations

import contextlib

import torch

from cascade_rl.stages.adapter_files import publish_adapter
from cascade_rl.stages.handover import write_checkpoint
from cascade_rl.stages.onpolicy.loop import train
from cascade_rl.stages.onpolicy.method import Method
from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.stages.onpolicy.states import resume
from cascade_rl.stages.onpolicy.weights import check_engine
from cascade_rl.store.checksums import publishing_checkpoint
from cascade_rl.store.files import publishing_file


def carry_out(run: RolloutRun, method: Method) -> None:
    """Resume, check the engine, train from the step reached, publish the checkpoint. A collective call."""
    first_step = resume(run)
    check_engine(run)
    run.tracker = run.context.tracker(first_step)
    run.context.note_start(first_step)
    progress = run.reporter.progress
    try:
        if progress:
            progress.begin(first_step)
        train(run, method, first_step)
    finally:
        for sink in (progress, run.tracker):
            if sink:
                sink.close()
    publish(run)


def publish(run: RolloutRun) -> None:
    """Publish the stage's result. The checkpoint comes last, since it says that the work is done. A collective call."""
    context, ranks, folder = run.context, run.context.ranks, run.context.job.place
    context.saver.settle()
    if run.policy.lora is not None:
        publish_adapter(context, run.policy)
    if context.job.keep_optimizer:
        with publishing_file(folder.optimizer) if ranks.is_main else contextlib.nullcontext() as file:
            run.policy.save_optimizer(file)
    weights = run.policy.whole_state_dict(torch.bfloat16 if context.dtype == "bfloat16" else torch.float32)
    if ranks.is_main:
        with publishing_checkpoint(folder) as checkpoint:
            write_checkpoint(run.policy.model, run.tokenizer, run.template, checkpoint, context.dtype, weights)
    ranks.barrier()
