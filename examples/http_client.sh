#!/usr/bin/env bash
# Use the HTTP API with curl: upload an image, wait for the job, search, edit and delete a record.
#
#     imgsearch serve &
#     examples/http_client.sh sample_data/images/10501.jpg
#
# IMGSEARCH_URL is the address of the service, IMGSEARCH_COLLECTION the collection, and
# IMGSEARCH_API_KEY the key, if the service requires one. Needs curl 7.83 or newer.
set -euo pipefail

image=$1
service=${IMGSEARCH_URL:-http://127.0.0.1:8888}
collection=$service/v1/collections/${IMGSEARCH_COLLECTION:-images}

# After 429 and 503, --retry waits as long as Retry-After says and sends the request again.
api() {
	curl --silent --show-error --fail-with-body --retry 5 --write-out '\n' \
		${IMGSEARCH_API_KEY:+--header "X-API-Key: $IMGSEARCH_API_KEY"} "$@"
}

# Print the first value of a field that is a string in the JSON on stdin.
value_of() {
	grep -o "\"$1\": *\"[^\"]*\"" | head -1 | cut -d '"' -f 4
}

echo "Upload $image"
job=$service$(api -F "files=@$image" -F 'description=blue canvas shoes' \
	--output /dev/null --write-out '%header{location}' "$collection/uploads")
while state=$(api "$job" | value_of state); [[ $state == queued || $state == running ]]; do
	sleep 0.2
done
report=$(api "$job/report")
echo "$report"
[[ $state == "done" ]]
record=$collection/records/$(value_of id <<< "$report")

echo "Search by image"
api -F "image=@$image" -F k=3 "$collection/search"

echo "Search by text"
api -F 'text=canvas' -F k=3 "$collection/search"

echo "Edit the metadata, and search by a part of the image with a condition"
api --request PATCH --json '{"checked": true}' "$record"
api -F "image=@$image" -F region=0,0,1,0.5 -F 'where=checked = true' "$collection/search"

echo "Save a thumbnail, and delete the record"
api --output thumbnail.webp "$record/thumbnail?side=256"
api --request DELETE "$record"
