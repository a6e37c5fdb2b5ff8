"""What ``sdegen-init`` copies, but for this file: in the wheel it is sdegen.skeleton."""
