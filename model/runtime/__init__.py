"""What runs the graphs, from the outside in.

::

    contract.py         what an opened file must offer (Engine), how it may fail, who fell back on whom
    tuning.py           the providers' names and what a deployment may choose
    chain.py            an engine that moves to the next provider when one fails, and says so
    onnx_runtime.py     TensorRT, CUDA and the CPU: the sole importer of onnxruntime
    open_vino.py        OpenVINO: with its forms the sole importer of openvino
    open_vino_forms.py  what has a faster form in OpenVINO, and which layers ncnn runs for it
    ncnn_engine.py      ncnn, for wide networks that draw: the sole importer of ncnn
    ncnn_plan.py        an ONNX graph that draws, cut into ncnn's layers and what is before and after them
    ncnn_layers.py      ncnn's layers as it writes them
    onnx_file.py        pieces of ONNX files, for the plan
    prepared.py         weights laid out once and mapped by every process
    interface.py        is this file the graph that the manifest promises?

``model.sessions`` puts them together; nothing else imports from here.
"""
