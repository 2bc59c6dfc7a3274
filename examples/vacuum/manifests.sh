#!/bin/sh
# Writes the manifests of the six updates, beside the files that firmware/make.py has made.
set -e
cd "$(dirname "$0")/updates"

# FOLDER NAME VERSION GROUP FILE... : the update of a group of components.
child() {
  folder=$1 name=$2 version=$3 group=$4
  shift 4
  proxyflash manifest create --provider Example --name "vacuum-$name" --version "$version" --group "$group" \
    -o "$folder/$name.importmanifest.json" "$@"
}

# FOLDER VERSION DESCRIPTION FILE... : what is deployed.
update() {
  folder=$1 version=$2 description=$3
  shift 3
  proxyflash manifest create --provider Example --name vacuum --version "$version" --description "$description" \
    -o "$folder/update.importmanifest.json" "$@"
}

child 1-bundle rootfs 2.0.0 partitions 1-bundle/rootfs-2.0.0.img --handler proxyflash/partition:1
child 1-bundle planner 2.0.0 applications 1-bundle/planner 1-bundle/rooms.conf --handler proxyflash/app:1 \
  --property executable:='["planner"]'
child 1-bundle motors 2.0.0 motors 1-bundle/motor-2.0.0.s19
child 1-bundle cameras 2.0.0 cameras 1-bundle/camera-2.0.0.dfu
update 1-bundle 2.0.0 "all that the vacuum has" --child 1-bundle/rootfs.importmanifest.json \
  --child 1-bundle/planner.importmanifest.json --child 1-bundle/motors.importmanifest.json \
  --child 1-bundle/cameras.importmanifest.json

child 2-group motors 2.1.0 motors 2-group/motor-2.1.0.s19
update 2-group 2.1.0 "both motors" --child 2-group/motors.importmanifest.json

child 3-check cameras 2.1.0 cameras 3-check/camera-2.1.0.dfu
update 3-check 2.2.0 "the cameras, in the dock" 3-check/docked.txt --handler proxyflash/check:1 \
  --property condition:='{"check": "docked"}' --child 3-check/cameras.importmanifest.json

child 4-rollback planner 3.0.0 applications 4-rollback/planner --handler proxyflash/app:1 \
  --property executable:='["planner"]'
child 4-rollback motors 3.0.0 motors 4-rollback/motor-3.0.0.s19 --property proxyflash:='{"onFailure": "rollback"}'
update 4-rollback 3.0.0 "the planner with the motors that it needs" --child 4-rollback/planner.importmanifest.json \
  --child 4-rollback/motors.importmanifest.json

child 5-later planner 3.1.0 applications 5-later/planner --handler proxyflash/app:1 --property executable:='["planner"]'
child 5-later steamer 2.0.0 steamers 5-later/steamer-2.0.0.hex
update 5-later 3.1.0 "the planner, and a steamer where there is one" --child 5-later/planner.importmanifest.json \
  --child 5-later/steamer.importmanifest.json

child 6-resume rootfs 3.0.0 partitions 6-resume/rootfs-3.0.0.img --handler proxyflash/partition:1
child 6-resume cameras 3.0.0 cameras 6-resume/camera-3.0.0.dfu
update 6-resume 4.0.0 "the partition and the cameras" --child 6-resume/rootfs.importmanifest.json \
  --child 6-resume/cameras.importmanifest.json
