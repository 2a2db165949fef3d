# SPDX-License-Identifier: BSD-2-Clause
"""A second one takes over, and a third, while programs work that check what they read."""
