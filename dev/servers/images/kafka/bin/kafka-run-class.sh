#!/bin/bash
# Runs a class of Kafka, or, called by the name of a tool, that tool.
set -euo pipefail
case $(basename "$0" .sh) in
kafka-topics) set -- org.apache.kafka.tools.TopicCommand "$@" ;;
kafka-configs) set -- kafka.admin.ConfigCommand "$@" ;;
kafka-consumer-groups) set -- org.apache.kafka.tools.consumer.group.ConsumerGroupCommand "$@" ;;
kafka-broker-api-versions) set -- org.apache.kafka.tools.BrokerApiVersionsCommand "$@" ;;
kafka-metadata-quorum) set -- org.apache.kafka.tools.MetadataQuorumCommand "$@" ;;
kafka-get-offsets) set -- org.apache.kafka.tools.GetOffsetShell "$@" ;;
kafka-storage) set -- kafka.tools.StorageTool "$@" ;;
esac
# shellcheck disable=SC2086
exec java ${KAFKA_HEAP_OPTS:--Xmx256M} -XX:TieredStopAtLevel=1 ${KAFKA_OPTS:-} -Dlog4j2.configurationFile=/etc/kafka/docker/tools-log4j2.yaml \
    -cp '/opt/kafka/libs/*' "$@"
