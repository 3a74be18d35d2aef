"""The recipes that made the mini family, each one command."""

from training.recipes.base import RECIPES, Recipe
from training.recipes.run import run_recipe

__all__ = ["RECIPES", "Recipe", "run_recipe"]
