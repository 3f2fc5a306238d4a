"""Pictures of any size made larger or coloured by stages that were trained on small ones."""
