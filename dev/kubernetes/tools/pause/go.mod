// What holds a pod's namespaces open while its containers come and go.
module ovation.dev/pause

go 1.25.0
