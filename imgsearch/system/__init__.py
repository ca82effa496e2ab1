"""The process and the machine: memory, interrupts, temporary files, durable writes."""
