"""The revisions of the job store's schema; run by ``Database.migrate``, nowhere else."""
