"""An agent of `torchrun` that waits two seconds for the others at its end, not five minutes."""

import sys

from torch.distributed import run
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

_made = LocalElasticAgent.__init__


def _hasty(self, *arguments, **options):  # type: ignore[no-untyped-def]
    _made(self, *arguments, **{**options, "exit_barrier_timeout": 2})


if __name__ == "__main__":
    LocalElasticAgent.__init__ = _hasty
    run.main(sys.argv[1:])
