//! What a server takes of its machine: time, switches, calls, memory.
