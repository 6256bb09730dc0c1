from .layout import DataSet as DataSet
from .layout import LayerInfo as LayerInfo
from .layout import Missing as Missing
from .layout import RecipeInfo as RecipeInfo
from .reading import Atlas as Atlas
from .reading import open as open
