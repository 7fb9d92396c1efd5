from tests.unit.priors.conftest import no_network, put_on_hub

__all__ = ["no_network", "put_on_hub"]
