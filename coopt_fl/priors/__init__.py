"""Priors: pretrained models, loaded by their spec."""

from coopt_fl.priors.prior import Prior, check_prior, load_prior
from coopt_fl.priors.spec import parse_prior

__all__ = ["Prior", "check_prior", "load_prior", "parse_prior"]
