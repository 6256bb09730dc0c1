"""One file an idea of the literature; importing the room makes its techniques known."""

from optogram.techniques.combine_filters import combine_filters as combine_filters
from optogram.techniques.correspondence import correspondence as correspondence
from optogram.techniques.correspondence import correspondence_by_chance as correspondence_by_chance
from optogram.techniques.deconvnet import deconvnet as deconvnet
from optogram.techniques.explain import explain as explain
from optogram.techniques.filters import filters as filters
from optogram.techniques.grad_cam import grad_cam as grad_cam
from optogram.techniques.grad_cam import grad_cam_plus_plus as grad_cam_plus_plus
from optogram.techniques.grad_cam import layer_cam as layer_cam
from optogram.techniques.guided_backprop import guided_backprop as guided_backprop
from optogram.techniques.guided_grad_cam import guided_grad_cam as guided_grad_cam
from optogram.techniques.input_x_gradient import input_x_gradient as input_x_gradient
from optogram.techniques.integrated_gradients import integrated_gradients as integrated_gradients
from optogram.techniques.invert import invert as invert
from optogram.techniques.localize import localize as localize
from optogram.techniques.lrp import lrp as lrp
from optogram.techniques.maximize import maximize as maximize
from optogram.techniques.occlusion import occlusion as occlusion
from optogram.techniques.occlusion import strongest_map as strongest_map
from optogram.techniques.rise import rise as rise
from optogram.techniques.saliency import saliency as saliency
from optogram.techniques.sample import sample as sample
from optogram.techniques.score_cam import score_cam as score_cam
from optogram.techniques.smoothgrad import smoothgrad as smoothgrad
from optogram.techniques.smoothgrad import vargrad as vargrad
from optogram.techniques.top_patches import top_patches as top_patches
