from cascade_rl.recipe.schema import *
