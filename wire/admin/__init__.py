"""The control protocol, version 1: how operators' tools talk to a running node.

Newline-delimited JSON over a local stream socket. The server greets, the client sends requests,
several of which may be in flight; answers carry the request's id.

    server  {"trunkline":"control","version":1,"node":...,"pid":...,"capabilities":[...]}
    client  {"id":1,"op":"tree","args":{"path":"/"},"window":8}
    server  {"id":1,"part":[...]}            any number of times
    server  {"id":1,"ok":true,"result":{...}}
    server  {"id":1,"ok":false,"error":{"code":"not_found","message":"..."}}
    client  {"id":2,"op":"cancel","args":{"request":1}}     ends request 1 early
    client  {"id":3,"op":"credit","args":{"request":1,"parts":4}}

`window` is optional: the number of parts the server may send before the client grants more with
`credit`. It lets one connection carry several streams without a slow one blocking the others.

Reading order: messages.py, lines.py, arguments.py, client.py, server.py. The operations are in
actors/admin: tree_view.py, verbs.py, events.py, trace.py and watch.py.
"""
