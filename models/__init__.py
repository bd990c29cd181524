"""Networks and data as the protocols need them (`core.work.Network`, `core.work.Minibatches`), real or phantom."""
