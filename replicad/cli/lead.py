"""What promote and switchover share: look at all nodes, say what follows, do it unless it is a dry run, and tell.

Must not know which of the two it is.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from replicad.cli.connect import make_client, node_addresses, run
from replicad.cli.leadership import Plan
from replicad.cli.options import Session
from replicad.cli.output import Output, escape_text
from replicad.cli.status import Row, show_rows, survey
from replicad.client import AsyncClient, Leading

LOOK_S = 2.0  # for each node to tell how it is


def lead(
    session: Session,
    plan_of: Callable[[Sequence[Row]], Plan],
    act: Callable[[AsyncClient, Plan, str], Awaitable[Leading]],
    *,
    dry_run: bool,
    timeout_s: float,
    ask: Callable[[], None] = lambda: None,
) -> None:
    """``plan_of`` makes a plan of what the nodes tell, or raises Failure; ``act`` carries it out at an address, unless
    ``ask`` raises when it has asked the operator."""
    output = Output(session)

    async def work() -> tuple[Plan, Leading | None, float]:
        async with make_client(session, timeout_s=LOOK_S) as client:
            rows = await survey(client, node_addresses(session))
        if not output.json:
            show_rows(rows, output)
        plan = plan_of(rows)
        if not output.json:
            output.write(f"{'dry run: ' if dry_run else ''}{escape_text(plan.text)}\n", flush=True)
        if dry_run or plan.address is None:
            return plan, None, 0.0
        ask()
        began = time.monotonic()
        async with make_client(session, timeout_s=timeout_s) as client:
            leading = await act(client, plan, plan.address)
        return plan, leading, time.monotonic() - began

    plan, leading, took_s = run(work())
    done = f"{leading.node} is the master of epoch {leading.epoch} now, after {took_s:.2f} s" if leading else ""
    if output.json or done:
        output.tell(
            done,
            {
                "node": plan.node,
                "done": leading is not None or plan.address is None,
                "dry_run": dry_run,
                "epoch": leading.epoch if leading else None,
                "size": leading.size if leading else None,
                "took_s": round(took_s, 3) if leading else None,
                "plan": plan.text,
            },
            done=done or plan.text,
        )
