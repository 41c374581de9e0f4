"""What the API and the worker speak through: settings, errors, jobs, storage and the queue."""
