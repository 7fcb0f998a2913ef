from sgmcmc_prune.likelihoods import Gaussian as Gaussian
from sgmcmc_prune.posterior import Posterior as Posterior
from sgmcmc_prune.posterior import open_posterior as open_posterior
from sgmcmc_prune.priors.em_settings import EMSettings as EMSettings
from sgmcmc_prune.run.config import PriorConfig as PriorConfig
from sgmcmc_prune.run.config import PruneConfig as PruneConfig
from sgmcmc_prune.run.config import SamplerConfig as SamplerConfig
from sgmcmc_prune.run.config import ScheduleConfig as ScheduleConfig
from sgmcmc_prune.sampling import sample as sample

__version__: str
