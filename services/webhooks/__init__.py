"""Webhooks: tell clients that a job has ended. Read the outbox of ``services.jobs``, call by ``services.outbound``."""
