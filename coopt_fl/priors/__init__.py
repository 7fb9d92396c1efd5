"""Priors: pretrained models behind one registry."""

from coopt_fl.priors.prior import Prior, check_prior, load_prior
from coopt_fl.priors.spec import PriorSpec, parse_prior

__all__ = ["Prior", "PriorSpec", "check_prior", "load_prior", "parse_prior"]
