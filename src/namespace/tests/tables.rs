//! One table for each operation: who asks, what is there, what comes of it.
