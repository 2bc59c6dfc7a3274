"""What the protocols on CAN share: how a running application is asked for its version."""
