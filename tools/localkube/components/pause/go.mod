module github.com/berth-run/berth/tools/localkube/components/pause

go 1.26.0
