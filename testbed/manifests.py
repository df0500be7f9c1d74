#!/usr/bin/env python3
"""Kubernetes manifests: that objects of KEDA and the Prometheus operator are what their definitions say, which
kubernetes-validate does not know, and that names which have to be the same in several files are. Each finding is a line.
"""

import glob
import os
import sys

import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as monitoring

FOLDER = "deploy/kubernetes"
MODELS = {
    ("keda.sh/v1alpha1", "ScaledObject"): keda.ScaledObject,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): keda.TriggerAuthentication,
    ("monitoring.coreos.com/v1", "PodMonitor"): monitoring.PodMonitor,
}
findings = []


def objects(path):
    with open(path) as file:
        return [each for each in yaml.safe_load_all(file) if each]


def unknown(given, read, path=""):
    """Paths of what was given and not read: fields that the definition does not have."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(read, dict) or key not in read:
                yield f"{path}.{key}"
            else:
                yield from unknown(value, read[key], f"{path}.{key}")
    elif isinstance(given, list):
        for place, value in enumerate(given):
            yield from unknown(value, read[place] if place < len(read or []) else None, f"{path}[{place}]")


def check_definition(path, given):
    model = MODELS.get((given["apiVersion"], given["kind"]))
    if model is None:
        return
    try:
        read = model.model_validate(given).model_dump(by_alias=True, exclude_unset=True, mode="json")
    except ValueError as error:
        findings.append(f"{path}: {error}")
        return
    findings.extend(f"{path}: {given['kind']} has no {field}" for field in unknown(given, read))


def gathered(folder):
    """The objects that a kustomization gathers, each with its path; and the kustomizations."""
    path = f"{folder}/kustomization.yaml"
    (kustomization,) = objects(path)
    named = {os.path.normpath(f"{folder}/{resource}") for resource in kustomization["resources"]}
    for file in glob.glob(f"{folder}/*.yaml"):
        if file not in named | {path}:
            findings.append(f"{path}: {file} is not among its resources")
    found, kustomizations = [], [(path, kustomization)]
    for resource in named:
        if os.path.isdir(resource):
            below, more = gathered(resource)
            found, kustomizations = found + below, kustomizations + more
        elif os.path.exists(resource):
            found += [(resource, each) for each in objects(resource)]
        else:
            findings.append(f"{path}: {resource} is not there")
    return found, kustomizations


def at(given, pointer):
    """What a JSON pointer leads to, if anything."""
    for part in pointer.strip("/").split("/"):
        given = given.get(part) if isinstance(given, dict) else None
    return given


def check_patches(path, kustomization, found):
    for patch in kustomization.get("patches", []):
        target = patch["target"]
        for kind in target["kind"].split("|"):
            hits = [each for _, each in found if each["kind"] == kind and each["metadata"]["name"] == target["name"]]
            if len(hits) != 1:
                findings.append(f"{path}: a patch's target {kind} {target['name']} is there {len(hits)} times")
            content = yaml.safe_load(patch["patch"])
            for operation in content if isinstance(content, list) else []:
                if operation["op"] in ("remove", "replace") and any(at(hit, operation["path"]) is None for hit in hits):
                    findings.append(f"{path}: {kind} has no {operation['path']} to {operation['op']}")


def check_names(folder):
    found, kustomizations = gathered(folder)
    for path, given in found:
        check_definition(path, given)
    for path, kustomization in kustomizations:
        check_patches(path, kustomization, found)
    kinds = {}
    for path, given in found:
        kinds.setdefault(given["kind"], {})[given["metadata"]["name"]] = (path, given)
    workloads = kinds.get("Deployment", {}) | {
        name: (path, given["spec"]["jobTemplate"]) for name, (path, given) in kinds.get("CronJob", {}).items()
    }
    ports, images = set(), set()
    for path, given in workloads.values():
        pod = given["spec"]["template"]["spec"]
        ports |= {(port["name"], port["containerPort"]) for each in pod["containers"] for port in each.get("ports", [])}
        images |= {each["image"] for each in pod["containers"]}
        if pod["serviceAccountName"] not in kinds["ServiceAccount"]:
            findings.append(f"{path}: there is no ServiceAccount {pod['serviceAccountName']}")
        if pod["terminationGracePeriodSeconds"] <= 30:
            findings.append(f"{path}: it is killed before --shutdown-grace and what comes after it have passed")
        component = given["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        for kind, selector in (("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector"), ("PodMonitor", "selector")):
            for other, policy in kinds.get(kind, {}).values():
                if policy["spec"][selector]["matchLabels"]["app.kubernetes.io/component"] != component:
                    findings.append(f"{other}: selects no pod of {path}")
    for path, policy in kinds.get("NetworkPolicy", {}).values():
        let_in = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        if ports and let_in != {number for _, number in ports}:
            findings.append(f"{path}: lets in {let_in}, and there are {ports}")
    for path, monitor in kinds.get("PodMonitor", {}).values():
        asked = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
        if not asked <= {name for name, _ in ports}:
            findings.append(f"{path}: asks for {asked}, and there are {ports}")
    for path, scaled in kinds.get("ScaledObject", {}).values():
        if scaled["spec"]["scaleTargetRef"]["name"] not in kinds["Deployment"]:
            findings.append(f"{path}: scales no Deployment")
        for trigger in scaled["spec"]["triggers"]:
            if trigger["authenticationRef"]["name"] not in kinds["TriggerAuthentication"]:
                findings.append(f"{path}: there is no such TriggerAuthentication")
            check_scaling(path, scaled["spec"], trigger["metadata"], kustomizations)
    for path, kustomization in kustomizations:
        for image in kustomization.get("images", []):
            if image["name"] not in images:
                findings.append(f"{path}: no container has the image {image['name']}")


def check_scaling(path, spec, trigger, kustomizations):
    # A standard queue allows 120,000 messages in flight, and each forwarder holds 10,000 (--max-in-flight).
    if spec["maxReplicaCount"] * 10_000 > 120_000:
        findings.append(f"{path}: so many forwarders may hold more than a queue allows in flight")
    literals = [
        literal
        for _, kustomization in kustomizations
        for generator in kustomization.get("configMapGenerator", [])
        for literal in generator["literals"]
    ]
    for literal in (f"QUEUE_URL={trigger['queueURL']}", f"AWS_REGION={trigger['awsRegion']}"):
        if literal not in literals:
            findings.append(f"{path}: the forwarder is not given {literal}")


for each in ("example", "drain"):
    check_names(f"{FOLDER}/{each}")
if findings:
    sys.exit("\n".join(sorted(set(findings))))
