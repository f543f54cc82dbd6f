"""The offline demo: draws pictures, labels them with a bundled small detector, scores and shows the result.

draw.py      random pictures of shapes with their true boxes
backdrop.py  the textures behind the shapes
train.py     how shapes.pt was trained from shapes.yaml
score.py     mAP50 of a run against what was drawn
sheet.py     a contact sheet of labelled pictures
__main__.py  `python -m farm.demo`: all in a row
"""
