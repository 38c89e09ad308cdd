"""Evidence for controls, collected by queries."""
