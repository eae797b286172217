"""Every kind of model, for the tests of what observers hear of them."""
